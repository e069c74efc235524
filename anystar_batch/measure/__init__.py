"""Label blocks to statistics: mergeable sums (`partials`) and finished rows (`table`)."""
