"""The instrument: a connection that stamps each read, and the splitter of event streams."""
