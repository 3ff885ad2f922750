"""Where ML Metadata is: the connection that both TFX and the reader of past runs open."""

from __future__ import annotations

from ml_metadata.proto import metadata_store_pb2

from pipeline.config import PipelineConfig


def connection_config(config: PipelineConfig) -> metadata_store_pb2.ConnectionConfig:
    """A MySQL server when the settings name one, else SQLite below the root."""
    settings, connection = config.metadata, metadata_store_pb2.ConnectionConfig()
    if settings.mysql_host:
        connection.mysql.host = settings.mysql_host
        connection.mysql.port = settings.mysql_port
        connection.mysql.database = settings.mysql_database
        connection.mysql.user = settings.mysql_user
        connection.mysql.password = settings.mysql_password
    else:
        connection.sqlite.filename_uri = str(config.metadata_path)
        connection.sqlite.connection_mode = (
            metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        )
    return connection
