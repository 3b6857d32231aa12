"""What a config needs on chips that are not there: bytes, work, traffic and the shortest time of a step."""
