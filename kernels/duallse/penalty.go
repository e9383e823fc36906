package duallse

import (
	"errors"
	"fmt"
	"math"

	"github.com/fortet/fortet/gpu"
	"github.com/fortet/fortet/tensor"
)

// PenaltyOutput is what is wanted of Penalty and PenaltyOf; a zero Tensor is
// not computed.
type PenaltyOutput struct {
	Value     tensor.Tensor   // (3) float64: what ReadPenalty reads
	Gradients []tensor.Tensor // none, or one for each marginal's potential; the centre is the first
	Objective Objective
}

// PenaltyValue is what Penalty and PenaltyOf tell.
type PenaltyValue struct {
	Penalty float64 // Σ_b w_b ψ(y_b)
	Linear  float64 // Σ ⟨b, potential⟩ over the marginals
	LogZ    float64 // log of the mean of exp(-c/ε) over the batch
}

// Dual is the dual value Linear - Penalty.
func (v PenaltyValue) Dual() float64 { return v.Linear - v.Penalty }

// ReadPenalty waits for the queue and reads PenaltyOutput.Value.
func ReadPenalty(t tensor.Tensor) (PenaltyValue, error) {
	var v [3]float64
	if t.DType() != tensor.Float64 || t.Len() != len(v) {
		return PenaltyValue{}, fmt.Errorf("duallse: value: %w: %v, want f64 (3,)", tensor.ErrInvalid, t)
	}
	if err := tensor.Get(t, v[:]); err != nil {
		return PenaltyValue{}, fmt.Errorf("duallse: value: %w", err)
	}
	return PenaltyValue{v[0], v[1], v[2]}, nil
}

// Penalty queues ∫ψ(Σ potentials)dR over all tuples b of a star with one or
// two arms, and its gradients Σ_b w_b ψ'(y_b) over the tuples that use a node:
//
//	y_b = β_j + α_i + γ_k,  w_b = exp(-c_b/ε - log Z) b_j b_i b_k
//
// log Z is *logZ, for example a running estimate, or else the batch's own, so
// that the weights sum to one. Potentials must be finite on nodes of weight
// more than zero. Work: n n₁ n₂ evaluations of ψ and ψ'. Workspace: n (n₁+n₂)
// weights and as many float64.
func Penalty(dev gpu.Device, s Star, d Divergence, logZ *float64, out PenaltyOutput) error {
	const op = "duallse: penalty"
	if dev == nil {
		return fmt.Errorf("%s: device: %w: got none", op, gpu.ErrInvalid)
	}
	sz, err := s.check(dev, op)
	if err != nil {
		return err
	}
	if len(s.Arms) > 2 {
		return fmt.Errorf("%s: arms: %w: got %d, want 1 or 2 (draw tuples and use PenaltyOf)", op, gpu.ErrInvalid, len(s.Arms))
	}
	counts := append([]int{sz.n}, sz.arms...)
	if err := errors.Join(d.check(op, sz.dtype), checkLogZ(op, logZ), out.check(dev, op, sz.dtype, counts)); err != nil {
		return err
	}
	n2 := 1
	if len(s.Arms) == 2 {
		n2 = sz.arms[1]
	}
	var held []tensor.Tensor
	defer func() {
		for _, t := range held {
			t.Free()
		}
	}()
	room := func(dtype tensor.DType, shape ...int) tensor.Tensor {
		t, e := tensor.New(dev, dtype, shape...)
		if e != nil {
			err = errors.Join(err, fmt.Errorf("%s: workspace: %w", op, e))
			return t
		}
		held = append(held, t)
		return t
	}
	w := penaltyWork{
		prior: room(tensor.Float64, 2),
		plan:  room(sz.dtype, sz.n, sz.arms[0]),
		part:  room(tensor.Float64, sz.n, 2),
		part1: room(tensor.Float64, sz.n, sz.arms[0]),
		part2: room(tensor.Float64, sz.n, n2),
	}
	weights := Output{Value: w.prior, Arms: make([]ArmOutput, len(s.Arms))}
	weights.Arms[0].Plan = w.plan
	if len(s.Arms) == 2 {
		w.conditional = room(sz.dtype, sz.n, n2)
		weights.Arms[1].Conditional = w.conditional
	}
	if err != nil {
		return err
	}
	// The weights of tuples are those of the star without potentials.
	prior := s
	prior.Potential = tensor.Tensor{}
	prior.Arms = append([]Arm(nil), s.Arms...)
	for i := range prior.Arms {
		prior.Arms[i].Potential = tensor.Tensor{}
	}
	if err := evaluate(dev, op, prior, sz, logZ, weights); err != nil {
		return err
	}
	return launchTriple(dev, s, sz, n2, d.canonical(), out, w)
}

// penaltyWork is the workspace of Penalty.
type penaltyWork struct {
	prior, plan, conditional, part, part1, part2 tensor.Tensor
}

func checkLogZ(op string, logZ *float64) error {
	if logZ != nil && (math.IsNaN(*logZ) || math.IsInf(*logZ, 0)) {
		return fmt.Errorf("%s: log Z: %w: got %v, want a finite number", op, gpu.ErrInvalid, *logZ)
	}
	return nil
}

func (o PenaltyOutput) check(dev gpu.Device, op string, dtype tensor.DType, counts []int) error {
	if o.Objective != Functional && o.Objective != NegativeDual {
		return fmt.Errorf("%s: objective: %w: got %d", op, gpu.ErrInvalid, int(o.Objective))
	}
	if len(o.Gradients) != 0 && len(o.Gradients) != len(counts) {
		return fmt.Errorf("%s: gradients: %w: got %d, want none or %d", op, gpu.ErrInvalid, len(o.Gradients), len(counts))
	}
	args := []tensor.Arg{tensor.Maybe("value", o.Value, tensor.Float64, 3)}
	for m, g := range o.Gradients {
		args = append(args, tensor.Maybe(fmt.Sprintf("gradient %d", m), g, dtype, counts[m]))
	}
	return tensor.Check(op, dev, args...)
}

// gradient is the output for marginal m, or the zero Tensor.
func (o PenaltyOutput) gradient(m int) tensor.Tensor {
	if m >= len(o.Gradients) {
		return tensor.Tensor{}
	}
	return o.Gradients[m]
}

// MaxMarginals is the largest number of marginals of Tuples.
const MaxMarginals = MaxArms + 1

// Marginal is a marginal of Tuples.
type Marginal struct {
	Potential tensor.Tensor // (size)
	LogWeight tensor.Tensor // log b (size), for Linear; the zero Tensor is uniform
}

// Tuples is a multi-marginal problem over given tuples of nodes, with any cost.
type Tuples struct {
	Epsilon   float64       // ε > 0
	Index     tensor.Tensor // (count, marginals) int32: the nodes of each tuple
	Cost      tensor.Tensor // c (count)
	Marginals []Marginal    // 1 to MaxMarginals
	LogZ      *float64      // log Z, or nil: that of the tuples
}

// tupleTile is how many tuples one tile of duallse_tuple_weight has.
const tupleTile = 1024

// PenaltyOf queues Σ_b w_b ψ(y_b) over given tuples and its gradients:
//
//	y_b = Σ_m potential_m[Index_bm],  w_b = exp(-c_b/ε) / Σ_b exp(-c_b/ε)
//
// or w_b = exp(-c_b/ε - log Z)/count with LogZ. The tuples should be drawn
// from the product of the marginals; a self-normalised estimate over count of
// them has a bias of order 1/count. A tuple with an index that is not a node
// has the weight NaN. Workspace: two float64 for each tuple.
func PenaltyOf(dev gpu.Device, t Tuples, d Divergence, out PenaltyOutput) error {
	const op = "duallse: tuples"
	if dev == nil {
		return fmt.Errorf("%s: device: %w: got none", op, gpu.ErrInvalid)
	}
	count, marginals := dim(t.Index, 0), len(t.Marginals)
	if marginals < 1 || marginals > MaxMarginals {
		return fmt.Errorf("%s: marginals: %w: got %d, want 1 to %d", op, gpu.ErrInvalid, marginals, MaxMarginals)
	}
	if !positive(t.Epsilon) {
		return fmt.Errorf("%s: epsilon: %w: got %v, want a finite number > 0", op, gpu.ErrInvalid, t.Epsilon)
	}
	dtype := t.Cost.DType()
	if dtype != tensor.Float32 && dtype != tensor.Float64 {
		return fmt.Errorf("%s: cost: %w: %v, want f32 or f64", op, tensor.ErrInvalid, t.Cost)
	}
	if count < 1 {
		return fmt.Errorf("%s: index: %w: %v, want (count, %d) with count > 0", op, tensor.ErrInvalid, t.Index, marginals)
	}
	args := []tensor.Arg{
		tensor.Want("index", t.Index, tensor.Int32, count, marginals),
		tensor.Want("cost", t.Cost, dtype, count),
	}
	counts := make([]int, marginals)
	total := 0
	for i, m := range t.Marginals {
		counts[i] = dim(m.Potential, 0)
		total += counts[i]
		if counts[i] < 1 {
			return fmt.Errorf("%s: marginal %d: potential: %w: %v, want (size,) with size > 0", op, i, tensor.ErrInvalid, m.Potential)
		}
		args = append(args,
			tensor.Want(fmt.Sprintf("marginal %d: potential", i), m.Potential, dtype, counts[i]),
			tensor.Maybe(fmt.Sprintf("marginal %d: log weight", i), m.LogWeight, dtype, counts[i]))
	}
	if err := errors.Join(tensor.Check(op, dev, args...), d.check(op, dtype), checkLogZ(op, t.LogZ),
		out.check(dev, op, dtype, counts)); err != nil {
		return err
	}
	tiles := (count + tupleTile - 1) / tupleTile
	work, err := tensor.New(dev, tensor.Float64, 2*count+3*tiles+total)
	if err != nil {
		return fmt.Errorf("%s: workspace: %w", op, err)
	}
	defer work.Free()
	return launchTuples(dev, t, counts, tiles, d.canonical(), out, work)
}
