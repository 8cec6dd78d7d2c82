package frame_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/nines-go/nines/wsfanout/internal/frame"
)

// What is published comes out of the frame byte for byte, and the frame is JSON whatever is in it.
func FuzzMessage(f *testing.F) {
	f.Add("room", "2.B", uint64(7), "id", []byte(`{"a":[1,2]}`))
	f.Add("r\"\\\n\u2028", "1.\xff", uint64(1<<53), "", []byte("no JSON"))
	f.Add("", "", uint64(0), "x", []byte{0xff, 0, 1})
	f.Add("t", "1.A", uint64(1), "x", []byte(`"quoted"`))
	f.Add("t", "1.A", uint64(1), "x", []byte("\"\xff\""))
	f.Fuzz(func(t *testing.T, topic, epoch string, offset uint64, id string, data []byte) {
		b := frame.AppendMessage(nil, frame.Message, topic, epoch, offset, id, data)
		var s frame.Server
		require.NoError(t, json.Unmarshal(b, &s), "%s", b)
		got, err := frame.Data(s.Data, s.Text, s.Base64)
		require.NoError(t, err)
		if !s.Text && !s.Base64 {
			require.True(t, json.Valid(data))
			data = bytesTrim(data)
		}
		require.Equal(t, string(data), string(got))

		var c frame.Client
		c.SetData(data)
		var back frame.Client
		require.NoError(t, json.Unmarshal(frame.Marshal(c), &back))
		_, err = frame.Data(back.Data, back.Text, back.Base64)
		require.NoError(t, err)
	})
}

// bytesTrim drops the white space around a JSON value, which is not part of it.
func bytesTrim(b []byte) []byte {
	var raw json.RawMessage
	_ = json.Unmarshal(b, &raw)
	return raw
}
