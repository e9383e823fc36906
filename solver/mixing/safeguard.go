package mixing

import "math"

// Safeguard takes Anderson's steps and takes them back where they were bad
// ones: an iteration of it
//
//	evaluates the image and the residual of the state,
//	if Worse(residual): TakeBack(state), and evaluates again,
//	else Step(state, image, residual).
//
// A mixed step is bad if it more than doubles the residual; NaN does. The plain
// step that could have been taken instead is then taken, and more plain ones
// follow, twice as many each time, up to 64. So an accelerated iteration cannot
// do much worse than the plain one.
type Safeguard struct {
	mixer    *Anderson
	fallback []float64 // the plain step from the last accepted state
	accepted float64   // its residual
	mixed    bool      // the last step was a mixed one
	plain    int       // plain steps still to take before mixing again
	penalty  int
	never    bool
}

// maxPenalty is how many plain steps follow a bad mixed one at most.
const maxPenalty = 64

// NewSafeguard begins with so many plain steps. weights: (n) are those of
// Anderson's norm, which it keeps; accelerate = false takes plain steps alone.
func NewSafeguard(weights []float64, plain int, accelerate bool) *Safeguard {
	return &Safeguard{
		mixer: NewAnderson(weights), fallback: make([]float64, len(weights)), accepted: math.Inf(1),
		plain: plain, penalty: 1, never: !accelerate,
	}
}

// Reweigh must be called where the weights of the norm were changed.
func (s *Safeguard) Reweigh() { s.mixer.Reweigh() }

// Mixed reports whether the state is that of a mixed step.
func (s *Safeguard) Mixed() bool { return s.mixed }

// Mixes reports whether the next step is going to be a mixed one.
func (s *Safeguard) Mixes() bool { return !s.never && s.plain == 0 }

// Worse reports whether the state is that of a mixed step, and a bad one.
func (s *Safeguard) Worse(residual float64) bool { return s.mixed && !(residual <= 2*s.accepted) }

// TakeBack replaces the state of a mixed step by that of the plain one.
func (s *Safeguard) TakeBack(state []float64) {
	copy(state, s.fallback)
	penalty := s.penalty
	s.Rest(penalty)
	s.penalty = min(2*penalty, maxPenalty)
}

// Rest forgets all earlier steps, and how many were bad; so many plain ones
// come next.
func (s *Safeguard) Rest(plain int) {
	s.mixer.Forget()
	s.plain, s.penalty, s.mixed = plain, 1, false
}

// Step accepts the state and makes the next one of it and its image.
func (s *Safeguard) Step(state, image []float64, residual float64) {
	s.accepted = residual
	copy(s.fallback, image)
	if s.mixed = s.Mixes(); s.mixed {
		s.mixer.Mix(state, state, image)
		return
	}
	s.plain = max(s.plain-1, 0)
	copy(state, image)
}

// Refuse replaces the state of a mixed step that was not even evaluated by that
// of the plain one, and forgets nothing.
func (s *Safeguard) Refuse(state []float64) {
	copy(state, s.fallback)
	s.mixed = false
}
