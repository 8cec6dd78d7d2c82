package config

import "errors"

// The errors that callers tell apart with errors.Is.
var (
	// ErrClosed: the Store was shut down, or its Run has ended. Save and Reload; Check.
	ErrClosed = errors.New("config: store closed")
	// ErrReadOnly: Config.ReadOnly is true for the values that hold now, here or on another node. Save.
	ErrReadOnly = errors.New("config: the configuration is read only")
	// ErrOverridden: a setting that was changed is set by the environment, which would win. Save.
	ErrOverridden = errors.New("config: the setting is set by the environment")
	// ErrConflict: the version is not SaveOptions.If any more, or others saved so often that this one never came through. Save.
	ErrConflict = errors.New("config: somebody else has saved meanwhile")
	// ErrRefused: another node cannot take these values; nothing has been changed anywhere. Save.
	ErrRefused = errors.New("config: another node refuses the values")
)
