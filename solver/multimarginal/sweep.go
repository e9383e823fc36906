package multimarginal

import "math"

// sweep is the walk through a part at one ε: a fixed-point map of the messages
// that lead to the root. It steps from a node to a child and back, and updates the
// potential of a node whenever it stands there; the messages into the node are then
// all current, since what changed lies behind the walker. At the fixed point
// all marginals are right.
type sweep struct {
	*bench
	*part
	eps float64
	// Of each node of the part; nil elsewhere.
	f     [][]float64 // potential
	sum   [][]float64 // of the messages into it
	h     [][]float64 // potential less all messages but one
	fresh [][]float64 // a message that just came
	down  [][]float64 // the message from the parent

	image    []float64
	residual float64
}

func newSweep(b *bench, p *part, eps float64) *sweep {
	s := &sweep{bench: b, part: p, eps: eps}
	for _, list := range []*[][]float64{&s.f, &s.sum, &s.h, &s.fresh, &s.down} {
		*list = make([][]float64, len(b.nodes))
		for _, k := range p.members {
			(*list)[k] = make([]float64, b.nodes[k].n)
		}
	}
	return s
}

// eval writes the image of a state. The residual is the L1 change of the marginals
// that the new messages bring about, summed over the edges and relative to the
// mass; of two exact nodes it is the marginal residual of the plan.
func (s *sweep) eval(state, image []float64) (float64, error) {
	copy(image, state)
	s.image, s.residual = image, 0
	if err := s.visit(s.root); err != nil {
		return 0, err
	}
	s.rescale()
	return s.residual / s.mass, nil
}

// up is the message of a child in the image.
func (s *sweep) up(k int, br branch) []float64 { return s.image[br.at : br.at+s.nodes[k].n] }

func (s *sweep) update(k int) {
	damp := s.nodes[k].damp(s.eps)
	for x, m := range s.sum[k] {
		s.f[k][x] = damp * m
	}
}

// visit walks through what hangs below node k.
func (s *sweep) visit(k int) error {
	sum, h, node := s.sum[k], s.h[k], &s.nodes[k]
	copy(sum, s.down[k])
	for _, br := range s.children[k] {
		for x, m := range s.up(k, br) {
			sum[x] += m
		}
	}
	s.update(k)
	for _, br := range s.children[k] {
		up, fresh, c := s.up(k, br), s.fresh[k], br.node
		for x, f := range s.f[k] {
			h[x] = f - sum[x] + up[x]
		}
		copy(fresh, up)
		switch {
		case br.leaf && s.nodes[c].free:
			if err := s.message(fresh, br.edge, k, s.f[c], s.eps, true); err != nil {
				return err
			}
		case br.leaf:
			if err := s.leaf(s.f[c], fresh, br.edge, c, h, s.eps); err != nil {
				return err
			}
		default:
			if err := s.inner(k, br, fresh); err != nil {
				return err
			}
		}
		for x, m := range fresh {
			after := sum[x] + (m - up[x])
			if a := node.a[x]; a > 0 {
				f := s.f[k][x]
				s.residual += a * math.Abs(capped((f-after)/s.eps)-capped((f-sum[x])/s.eps))
			}
			sum[x] = after
			up[x] = m
		}
		s.update(k)
	}
	return nil
}

// capped is exp z, but finite: the marginals of first messages may be off by any
// factor.
func capped(z float64) float64 { return math.Exp(min(z, 600)) }

// inner goes from node k to a child that is no leaf and back.
func (s *sweep) inner(k int, br branch, fresh []float64) error {
	c := br.node
	if err := s.message(s.down[c], br.edge, c, s.h[k], s.eps, true); err != nil {
		return err
	}
	if err := s.visit(c); err != nil {
		return err
	}
	for x, f := range s.f[c] {
		s.h[c][x] = f - (s.sum[c][x] - s.down[c][x])
	}
	return s.message(fresh, br.edge, k, s.h[c], s.eps, true)
}

// rescale moves the image to the best mass. Penalties much stronger than ε agree
// on the mass of the plan only slowly, ε/ρ of the way at each sweep; but adding
// constants t_k to the potentials, which is what changes the mass, has an optimum
// in closed form (Séjourné, Vialard and Peyré, "Faster unbalanced optimal
// transport: translation invariant Sinkhorn", 2022, here for any number of
// marginals):
//
//	t_k = ρ_k (log <a_k, exp(-f_k/ρ_k)> - log M)
//	log M = (Σ ρ_k log <a_k, exp(-f_k/ρ_k)> + ε log ΣP) / (Σ ρ_k + ε)
//
// or the mass M of an exact node where there is one, whose constant undoes the
// others.
func (s *sweep) rescale() {
	var (
		logA     = map[int]float64{}
		rhos     = 0.0
		weighted = 0.0
		fixed    = -1
	)
	for _, k := range s.members {
		node := &s.nodes[k]
		switch {
		case node.free:
		case node.exact():
			fixed = k
		default:
			logA[k] = logSum(node.n, func(x int) float64 { return node.loga[x] - s.f[k][x]/node.rho })
			rhos += node.rho
			weighted += node.rho * logA[k]
		}
	}
	if len(logA) == 0 {
		return
	}
	root := &s.nodes[s.root]
	logM := math.Log(s.mass)
	if fixed < 0 {
		mass := logSum(root.n, func(x int) float64 { return root.loga[x] + (s.f[s.root][x]-s.sum[s.root][x])/s.eps })
		logM = (weighted + s.eps*mass) / (rhos + s.eps)
	}
	shift, total := map[int]float64{}, 0.0
	for k, l := range logA {
		shift[k] = s.nodes[k].rho * (l - logM)
	}
	for _, k := range s.members { // in order, so that sums repeat to the bit
		total += shift[k]
	}
	if fixed >= 0 {
		shift[fixed] = -total
	}
	s.lower(s.root, shift)
}

// lower takes the constants of a child's subtree off its message and returns the
// sum of those of node k's.
func (s *sweep) lower(k int, shift map[int]float64) float64 {
	total := shift[k]
	for _, br := range s.children[k] {
		t := s.lower(br.node, shift)
		total += t
		for x := range s.up(k, br) {
			s.up(k, br)[x] -= t
		}
	}
	return total
}

// logSum is log Σ exp z over x = 0 … n-1.
func logSum(n int, z func(x int) float64) float64 {
	top := math.Inf(-1)
	for x := range n {
		top = max(top, z(x))
	}
	if math.IsInf(top, 0) {
		return top
	}
	s := 0.0
	for x := range n {
		s += math.Exp(z(x) - top)
	}
	return top + math.Log(s)
}
