package dbrouter_test

func migrateChild() {}
