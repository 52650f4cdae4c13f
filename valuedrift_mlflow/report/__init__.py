"""What all reports share: the terminal, figures, pages. It knows no type of result."""
