"""Pages, notebooks and the site as readers meet them."""
