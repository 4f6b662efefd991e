"""Flight SQL: the tables of a tenant, queried with SQL by whatever speaks ADBC, JDBC or plain Flight SQL."""
