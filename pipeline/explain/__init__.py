"""Explain: everything that is known about one send; nothing is written, and the job may go on."""
