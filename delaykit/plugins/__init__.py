"""What plugins and the core yield: records, the hooks that ask for them, who loads and who finds them."""
