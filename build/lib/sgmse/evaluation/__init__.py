"""Metrics, tables of results, intervals, leak scores, figures and pages: what enhanced speech is worth."""
