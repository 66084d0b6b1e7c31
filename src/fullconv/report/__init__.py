"""Pictures of labels, charts of scores, and the page that shows a run."""
