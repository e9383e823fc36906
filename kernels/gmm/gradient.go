package gmm

import (
	"github.com/fortet/fortet/tensor"
)

// Losses come with their gradient by all parameters, in two steps: Likelihood or
// Match leave partial sums over chunks of rows in Partial, Reduce adds them up.
// Between the two, the partial sums of several processes or batches may be
// joined: Reduce adds all rows of Partial, in their order.

// Rows of a chunk are a multiple of chunkQuantum, the rows of a CPU block at the
// widest level. A chunk's partial sums are written once, so that more rows of a
// chunk make little difference above that; mostChunks bounds what Reduce reads,
// and partialElements the memory, where that leaves fewestChunks to work in
// parallel.
const (
	chunkQuantum    = 32
	mostChunks      = 128
	fewestChunks    = 16
	partialElements = 1 << 22
)

// chunkRows is how many of n rows make a chunk.
func chunkRows(width, n int) int {
	most := min(max(partialElements/width, fewestChunks), mostChunks)
	return chunkQuantum * max(1, pieces(n, chunkQuantum*most))
}

// partialWidth is 1 + K + 2 K d or, with axes, 1 + K + K d + K d².
func partialWidth(m Mixture) int {
	k, d := m.Components(), m.Dim()
	if m.Axes.IsZero() {
		return 1 + k + 2*k*d
	}
	return 1 + k + k*d + k*d*d
}

// PartialShape is the shape of Partial: for Match of one batch of so many rows,
// for Likelihood of the rows of its terms.
func PartialShape(m Mixture, rows ...int) (chunks, width int) {
	width = partialWidth(m)
	for _, n := range rows {
		chunks += pieces(n, chunkRows(width, n))
	}
	return chunks, width
}

// Term is one mean of log-likelihoods: Weight · mean_b L_T(x_b).
type Term struct {
	X      tensor.Tensor // (n, d); the zero Tensor: no such term
	T      float64       // in [0, 1]
	Weight float64
}

// LikelihoodArgs are the arguments of Likelihood. All arrays have the mixture's
// element type and lie on its device.
type LikelihoodArgs struct {
	Mixture
	Terms   [2]Term
	Partial tensor.Tensor // PartialShape(Mixture, rows of both terms), overwritten
}

// Likelihood queues the partial sums of
//
//	Σ_i Weight_i · mean_b L_{T_i}(x_b)
//
// and of its gradient, in O(K d) operations a sample or, with axes, O(K d²).
//
// Terms of weight 1 at T = 0 with samples of μ₀ and of weight -1 at T = 1 with
// samples of μ₁ are the maximum-likelihood loss of LightSB, up to
// what does not depend on the parameters:
//
//	mean log c(x₀) - mean log v(x₁) = loss + (mean |x₀|² + mean |x₁|²)/2ε + (d/2) log 2πε
//
// Weights -ε and ε at points that the transport map was inverted to are the dual
// of the Schrödinger-Bass bridge. Terms without rows do not count; at least one
// must have some.
func Likelihood(a LikelihoodArgs) error {
	const op = "gmm: likelihood"
	if err := a.Mixture.Check(op); err != nil {
		return err
	}
	names := [2]string{"x of term 0", "x of term 1"}
	var rows [2]int
	for i := range a.Terms {
		term := &a.Terms[i]
		if term.X.IsZero() {
			continue
		}
		var err error
		if rows[i], err = checkRows(op, names[i], a.Mixture, term.X); err != nil {
			return err
		}
		if err := checkTime(op, "t", term.T); err != nil {
			return err
		}
		if err := checkFinite(op, "weight", term.Weight); err != nil {
			return err
		}
	}
	if rows == [2]int{} {
		return invalid(op, "terms", "no rows")
	}
	chunks, width := PartialShape(a.Mixture, rows[0], rows[1])
	if err := tensor.Check(op, a.Logits.Device(), tensor.Want("partial", a.Partial, a.Logits.DType(), chunks, width)); err != nil {
		return err
	}
	if err := checkApart(op, a.Mixture, []named{{"partial", a.Partial}}, []named{{names[0], a.Terms[0].X}, {names[1], a.Terms[1].X}}); err != nil {
		return err
	}
	return launchLikelihood(a, rows, chunks)
}

// MatchArgs are the arguments of Match. All arrays have the mixture's element
// type and lie on its device.
type MatchArgs struct {
	Mixture
	X       tensor.Tensor // (n, d), n > 0
	U       tensor.Tensor // (n, d): the drift to match, (x₁ - x)/(1 - t) of a Brownian bridge
	T       tensor.Tensor // (n): times in [0, 1]
	Weight  float64
	Partial tensor.Tensor // PartialShape(Mixture, n), overwritten
}

// Match queues the partial sums of the loss of bridge matching,
//
//	Weight · mean_b |g(t_b, x_b) - u_b|²
//
// and of its gradient (LightSB-M), in O(K d) operations a sample or,
// with axes, O(K d²). Weight 1/d makes it a mean over coordinates, too.
func Match(a MatchArgs) error {
	const op = "gmm: match"
	if err := a.Mixture.Check(op); err != nil {
		return err
	}
	n, err := checkRows(op, "x", a.Mixture, a.X)
	if err != nil {
		return err
	}
	if n == 0 {
		return invalid(op, "x", "no rows")
	}
	chunks, width := PartialShape(a.Mixture, n)
	dtype := a.Logits.DType()
	if err := tensor.Check(op, a.Logits.Device(),
		tensor.Want("u", a.U, dtype, n, a.Dim()),
		tensor.Want("t", a.T, dtype, n),
		tensor.Want("partial", a.Partial, dtype, chunks, width),
	); err != nil {
		return err
	}
	if err := checkFinite(op, "weight", a.Weight); err != nil {
		return err
	}
	if err := checkApart(op, a.Mixture, []named{{"partial", a.Partial}}, []named{{"x", a.X}, {"u", a.U}, {"t", a.T}}); err != nil {
		return err
	}
	return launchMatch(a, n, chunks)
}

// ReduceArgs are the arguments of Reduce. All arrays have the mixture's element
// type and lie on its device.
type ReduceArgs struct {
	Mixture
	Partial tensor.Tensor // (chunks, width), of any number of chunks above 0
	Floor   float64       // of Scales

	// Outputs. None may share memory with another array.
	Loss    tensor.Tensor // (1), or the zero Tensor
	DLogits tensor.Tensor // (K): by log α
	DMeans  tensor.Tensor // (K, d): by r
	DRaw    tensor.Tensor // (K, d): by raw, where s = Floor + exp(raw)
	// DTurn (K, d, d) is the derivative by the axes, for a mixture that has them,
	// or the zero Tensor: by W_pq, p < q, of A_j ← exp(W_j) A_j with W_j skew, at
	// W = 0. It is itself skew.
	DTurn tensor.Tensor
}

// Reduce queues the sums over all chunks, added in double precision. The
// derivative by raw is that by s times (s - Floor), also where Scales clamps:
// there it leads back.
func Reduce(a ReduceArgs) error {
	const op = "gmm: reduce"
	if err := a.Mixture.Check(op); err != nil {
		return err
	}
	if a.Partial.IsZero() {
		return missing(op, "partial")
	}
	if len(a.Partial.Shape()) != 2 || a.Partial.Dim(0) == 0 {
		return invalid(op, "partial", "%v, want (chunks, %d) with chunks > 0", a.Partial, partialWidth(a.Mixture))
	}
	dtype, k, d := a.Logits.DType(), a.Components(), a.Dim()
	if err := tensor.Check(op, a.Logits.Device(),
		tensor.Want("partial", a.Partial, dtype, a.Partial.Dim(0), partialWidth(a.Mixture)),
		tensor.Maybe("loss", a.Loss, dtype, 1),
		tensor.Want("dlogits", a.DLogits, dtype, k),
		tensor.Want("dmeans", a.DMeans, dtype, k, d),
		tensor.Want("draw", a.DRaw, dtype, k, d),
		tensor.Maybe("dturn", a.DTurn, dtype, k, d, d),
	); err != nil {
		return err
	}
	if err := checkFinite(op, "floor", a.Floor); err != nil {
		return err
	}
	if a.Axes.IsZero() && !a.DTurn.IsZero() {
		return invalid(op, "dturn", "given for a mixture without axes")
	}
	outputs := [...]named{{"loss", a.Loss}, {"dlogits", a.DLogits}, {"dmeans", a.DMeans}, {"draw", a.DRaw}, {"dturn", a.DTurn}}
	if err := checkApart(op, a.Mixture, outputs[:], []named{{"partial", a.Partial}}); err != nil {
		return err
	}
	return launchReduce(a)
}
