"""The command line: parse → config → one library call → render. Printing happens only here."""
