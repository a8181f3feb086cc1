"""The evaluators and the published protocols. Import by name from it; never `import eval`."""
