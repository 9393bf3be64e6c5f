"""What all pages (HTML) share: the base document, its stylesheet, and charts; no page has a script."""
