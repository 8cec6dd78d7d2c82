package server

// Redact leaves the password out of a data source.
var Redact = redact
