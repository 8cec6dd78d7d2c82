package wsfanout

import "time"

// SetUncertain shortens the time after which an unacknowledged publish is given up. Before Run.
func (h *Hub) SetUncertain(d time.Duration) { h.uncertain = d }
