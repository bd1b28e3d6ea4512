"""Pictures: contact sheets, scatter plots, figures."""
