package wire

const (
	tagPrepare tag = iota + 1
	tagPromise
	tagViewUpdate
	tagNack
	tagInstall
	tagInstalled
	tagActive
	tagOffer
	tagPub
	tagPubAck
	tagRep
	tagRepAck
	tagSub
	tagSubOK
	tagLive
	tagConfirm
	tagConfirmed
	tagReturn
	tagReturnOK
	tagUnsub
	tagDigest
	tagResub
	tagBye
	tagFetch
	tagBackfill
)

func (*Prepare) tag() tag    { return tagPrepare }
func (*Promise) tag() tag    { return tagPromise }
func (*ViewUpdate) tag() tag { return tagViewUpdate }
func (*Nack) tag() tag       { return tagNack }
func (*Install) tag() tag    { return tagInstall }
func (*Installed) tag() tag  { return tagInstalled }
func (*Active) tag() tag     { return tagActive }
func (*Offer) tag() tag      { return tagOffer }
func (*Pub) tag() tag        { return tagPub }
func (*PubAck) tag() tag     { return tagPubAck }
func (*Rep) tag() tag        { return tagRep }
func (*RepAck) tag() tag     { return tagRepAck }
func (*Sub) tag() tag        { return tagSub }
func (*SubOK) tag() tag      { return tagSubOK }
func (*Live) tag() tag       { return tagLive }
func (*Confirm) tag() tag    { return tagConfirm }
func (*Confirmed) tag() tag  { return tagConfirmed }
func (*Return) tag() tag     { return tagReturn }
func (*ReturnOK) tag() tag   { return tagReturnOK }
func (*Unsub) tag() tag      { return tagUnsub }
func (*Digest) tag() tag     { return tagDigest }
func (*Resub) tag() tag      { return tagResub }
func (*Bye) tag() tag        { return tagBye }
func (*Fetch) tag() tag      { return tagFetch }
func (*Backfill) tag() tag   { return tagBackfill }
