"""Plans held against what was measured, and costs against earlier costs."""
