"""What people ask of the tables: the report command, its SQL files, and a connection for notebooks.

import analytics

connection = analytics.connect("/data/sms")
connection.sql("SELECT day, count(*) FROM reports WHERE NOT success GROUP BY day").show()
"""

from analytics.catalog import DatasetError
from analytics.connection import connect

__all__ = ["DatasetError", "connect"]
