"""Parts of README.md and of the site's pages that are made from the figures that git has: tables and sentences."""
