"""Records of a run (config, params, environment, fingerprint), written and read back only here."""
