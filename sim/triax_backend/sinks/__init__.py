"""Processes that read Kafka and write where data is used; their offsets live in what they write."""
