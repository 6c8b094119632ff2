"""Batch jobs: Ibis expressions over the lake, spectra of raw captures, results into PostgreSQL."""
