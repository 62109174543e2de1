"""Compare enhancement systems: scores with intervals, tables and the report's page.

Authors
 * The speechbrain-cffma developers 2026
"""
