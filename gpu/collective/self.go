package collective

import "github.com/fortet/fortet/gpu"

// Self is the group of one. Gather copies, in the device's queue; Sum and
// Broadcast have nothing to do. All can be recorded.
func Self(dev gpu.Device) Group { return &self{member{name: "self", size: 1, dev: dev}} }

type self struct{ member }

func (s *self) Gather(out, in gpu.Buffer) error {
	if err := s.checkGather(out, in); err != nil || in.Bytes == 0 || in.Ptr == out.Ptr {
		return err
	}
	return copyBuffer(s.dev, out, in)
}

func (s *self) Sum(v gpu.Buffer, of Element) error { return s.checkSum(v, of) }

func (s *self) Broadcast(_ gpu.Buffer, root int) error { return s.checkBroadcast(root) }

func (s *self) Barrier() error {
	if err := s.open("barrier"); err != nil {
		return err
	}
	return s.dev.Sync()
}

func (s *self) Close() error {
	s.closed = true
	return nil
}
