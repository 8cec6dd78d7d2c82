package jobs

import (
	"embed"
	"io/fs"
)

//go:embed migrations
var migrations embed.FS

// Migrations returns the schema of the job tables: folders postgres, mysql and sqlite of numbered SQL files. Run applies it; it is
// exported for those who apply schemas by a tool of their own.
func Migrations() fs.FS {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return sub
}
