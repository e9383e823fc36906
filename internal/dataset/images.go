package dataset

import (
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/image/draw"
)

// maxPixels bounds one picture before it is decoded.
const maxPixels = 1 << 26

func openImages(folder string, o *options) (*table, error) {
	size, err := parseSize(o.text("size", ""))
	if err != nil {
		o.fail("size", o.text("size", ""), "a side from 1 to 4096, or height x width as 32x48")
	}
	channels := o.integer("channels", 3, 1, 3)
	if channels == 2 {
		o.fail("channels", "2", "1 or 3")
	}
	if o.err != nil {
		return nil, o.err
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	t := &table{divisor: 255}
	for _, e := range entries {
		if pictureFormat(e.Name()) == nil || e.IsDir() {
			continue
		}
		if err := t.appendImage(filepath.Join(folder, e.Name()), size, channels); err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
	}
	if t.n == 0 {
		return nil, errors.New("no picture in the folder, want .png, .jpg or .jpeg")
	}
	return t, nil
}

// parseSize reads 32 or 32x48; empty is the zero Point.
func parseSize(text string) (image.Point, error) {
	if text == "" {
		return image.Point{}, nil
	}
	height, width, both := strings.Cut(text, "x")
	if !both {
		width = height
	}
	h, err1 := strconv.Atoi(height)
	w, err2 := strconv.Atoi(width)
	if err1 != nil || err2 != nil || h < 1 || w < 1 || h > 4096 || w > 4096 {
		return image.Point{}, errors.New("not a size")
	}
	return image.Point{w, h}, nil
}

// format is how to read a kind of picture.
type format struct {
	config func(io.Reader) (image.Config, error)
	decode func(io.Reader) (image.Image, error)
}

// pictureFormat tells by the suffix, and is nil for other files.
func pictureFormat(name string) *format {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".png":
		return &format{png.DecodeConfig, png.Decode}
	case ".jpg", ".jpeg":
		return &format{jpeg.DecodeConfig, jpeg.Decode}
	}
	return nil
}

// appendImage adds a picture as a row of bytes.
func (t *table) appendImage(path string, size image.Point, channels int) error {
	src, err := readImage(path)
	if err != nil {
		return err
	}
	if size == (image.Point{}) {
		size = src.Bounds().Size()
	}
	shape := Shape{size.Y, size.X, channels}
	if t.n == 0 {
		t.image, t.d = shape, shape.Size()
	}
	if shape != t.image {
		return fmt.Errorf("%s, want %s as the files before it, or the option size", shape, t.image)
	}
	if len(t.bytes) > maxValues-t.d {
		return fmt.Errorf("more than %d values in all", maxValues)
	}
	canvas := image.NewRGBA(image.Rectangle{Max: size})
	draw.Draw(canvas, canvas.Bounds(), image.White, image.Point{}, draw.Src)
	if from := crop(src.Bounds(), size); from.Size() == size {
		draw.Draw(canvas, canvas.Bounds(), src, from.Min, draw.Over)
	} else {
		draw.CatmullRom.Scale(canvas, canvas.Bounds(), src, from, draw.Over, nil)
	}
	for k := 0; k < len(canvas.Pix); k += 4 {
		r, g, b := canvas.Pix[k], canvas.Pix[k+1], canvas.Pix[k+2]
		if channels == 1 {
			// ITU-R BT.601 luma, as color.GrayModel.
			t.bytes = append(t.bytes, byte((299*int(r)+587*int(g)+114*int(b)+500)/1000))
		} else {
			t.bytes = append(t.bytes, r, g, b)
		}
	}
	t.n++
	return nil
}

func readImage(path string) (image.Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	format := pictureFormat(path)
	config, err := format.config(f)
	if err != nil {
		return nil, err
	}
	if w, h := config.Width, config.Height; w < 1 || h < 1 || h > maxPixels/w {
		return nil, fmt.Errorf("%d x %d pixels, want 1 to %d", h, w, maxPixels)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return format.decode(f)
}

// crop returns the largest rectangle about the centre of b with the ratio of
// size.
func crop(b image.Rectangle, size image.Point) image.Rectangle {
	w, h := b.Dx(), b.Dy()
	if w*size.Y > h*size.X {
		w = max(1, h*size.X/size.Y)
	} else {
		h = max(1, w*size.Y/size.X)
	}
	from := image.Pt(b.Min.X+(b.Dx()-w)/2, b.Min.Y+(b.Dy()-h)/2)
	return image.Rectangle{from, from.Add(image.Pt(w, h))}
}
