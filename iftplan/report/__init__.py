"""Values shown to people: tables in text, Markdown and CSV."""
