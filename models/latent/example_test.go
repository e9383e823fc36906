package latent_test

import (
	"fmt"

	"github.com/fortet/fortet/internal/dataset"
	"github.com/fortet/fortet/models/latent"
)

func Example() {
	digits, err := dataset.Open("digits?class=3")
	if err != nil {
		fmt.Println(err)
		return
	}
	x, err := digits.Load()
	if err != nil {
		fmt.Println(err)
		return
	}
	pca, err := latent.Fit(x.X, x.N, x.D, 16)
	if err != nil {
		fmt.Println(err)
		return
	}
	pca.Normalize()
	z := make([]float64, x.N*pca.K)
	if err := pca.Encode(z, x.X); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%d pixels to %d latents, %.1f%% of the variance\n", pca.D, pca.K, 100*pca.Explained())
	// Output: 64 pixels to 16 latents, 89.5% of the variance
}
