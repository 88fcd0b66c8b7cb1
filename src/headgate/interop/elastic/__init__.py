"""Logs for Elasticsearch: Filebeat or Logstash reads, templates and pipelines name the fields."""

from __future__ import annotations

from headgate.interop.elastic.fields import ACCESS, LINES
from headgate.interop.elastic.files import files

__all__ = ["ACCESS", "LINES", "files"]
