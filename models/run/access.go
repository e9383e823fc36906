package run

// StreamSeed is the seed of one of a run's streams of draws; stream 0 has the
// run's own. Streams of one generator are independent of each other.
func StreamSeed(seed, stream uint64) uint64 { return seed + stream*0x9e3779b97f4a7c15 } // 2^64 / golden ratio: dataset mixes it

// Floats is an array of the checkpoint as float64.
func (c *Checkpoint) Floats(name string) ([]float64, error) {
	a := c.arrays[name]
	if a == nil {
		return nil, invalid("%s: array %q: missing", c.Path, name)
	}
	return a.Float64s(), nil
}
