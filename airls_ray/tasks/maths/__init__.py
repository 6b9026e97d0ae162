"""Mathematical answers: notation, a strict parser, exact comparison, names for votes."""
