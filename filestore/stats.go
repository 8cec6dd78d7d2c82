package filestore

import (
	"time"
)

// Stats are a store's figures since it was opened.
type Stats struct {
	Puts, Gets, Stats, Deletes, Lists, Appends, Copies int64 // calls

	Failures int64 // of these; neither an object that is not there, nor one that is there already, nor a failed precondition is one
	BytesIn  int64 // of contents, stored
	BytesOut int64 // of contents, read

	PutTime time.Duration // all Puts together, with their sources
	GetTime time.Duration // all Gets together, up to the first byte

	Capabilities Capabilities
}

// Stats returns the figures since the store was opened.
func (s *Store) Stats() Stats {
	return Stats{
		Puts: s.puts.Load(), Gets: s.gets.Load(), Stats: s.stats.Load(), Deletes: s.deletes.Load(), Lists: s.lists.Load(),
		Appends: s.appends.Load(), Copies: s.copies.Load(), Failures: s.failures.Load(), BytesIn: s.bytesIn.Load(), BytesOut: s.bytesOut.Load(),
		PutTime: time.Duration(s.putTime.Load()), GetTime: time.Duration(s.getTime.Load()), Capabilities: s.driver.Capabilities(),
	}
}
