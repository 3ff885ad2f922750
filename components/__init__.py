"""The project's own TFX components."""

from components.artifacts import IdxFiles as IdxFiles
