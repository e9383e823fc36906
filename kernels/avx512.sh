#!/usr/bin/env bash
# avx512.sh - runs tests of kernels at the AVX-512 level on a machine whose
# processor has none: in Bochs, an emulator of one that has, under a Linux
# kernel of Debian's. Some thousand times slower than a processor, so that it
# runs what compares kernels with their definitions and leaves the rest.
#
#   kernels/avx512.sh [OPERATION [TESTS]]
#
# TESTS is a regular expression as `go test -run` takes it. Without arguments
# it runs the list below, in about half an hour. It needs Debian or Ubuntu with
# bochs, bochsbios, vgabios, isolinux, syslinux-common, xorriso, busybox-static
# and cpio, and fetches the kernel's package. FORTET_LINUX is a kernel image to
# boot in its place, 6.1 or newer.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$PWD/build/avx512
for need in bochs xorriso cpio gzip /bin/busybox /usr/lib/ISOLINUX/isolinux.bin /usr/share/bochs/BIOS-bochs-latest; do
  [ -e "$need" ] || command -v "$need" >/dev/null || { echo "avx512.sh: $need is missing; see the packages in this file" >&2; exit 2; }
done
if [ $# -gt 0 ]; then
  list="$1 ${2:-.}"
else
  list='langevin .
batch .
adam .
cost .
ou TestTransition|TestDevicesAgree|TestOptionalOutputs
philox TestKnownAnswer|TestDevicesEqualHost
gmm TestEvaluateValues|TestGradientValues|TestFiniteDifferences|TestSampleModel|TestGradientLaws
softmin TestDefinition|TestGradient|TestApplyParts
proximal TestKnownInverse|TestInverse|TestOneComponent
gmm TestEvaluate$|TestGradients$|TestSample$
axis TestDefinition|TestTails
fdual TestRows
ensemble TestPotentials|TestUnbalanced
duallse TestChain|TestTwoTeachers|TestAllTuples|TestPenalty$|TestFiniteDifferences'
fi

rm -rf "$out" && mkdir -p "$out"/root/{bin,proc,sys,dev,tmp,tests} "$out"/iso
cut -d' ' -f1 <<<"$list" | sort -u | while read -r op; do
  "${GO:-go}" test -c -o "$out/root/tests/$op" "./kernels/$op"
done
ldd "$out"/root/tests/* | grep -o '/[^ ]*\.so[^ ]*' | sort -u | while read -r library; do
  mkdir -p "$out/root$(dirname "$library")" && cp -L "$library" "$out/root$library"
done
cp /bin/busybox "$out/root/bin"
echo "$list" >"$out/root/list"
cat >"$out/root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
export HOME=/tmp FORTET_NO_EMU=1 FORTET_CPU_LEVEL=avx512
grep -qw avx512dq /proc/cpuinfo || echo "FAIL: no AVX-512 here"
cd /tests
while read -r op tests; do
  echo "== $op $tests"
  "./$op" -test.count=1 -test.timeout=0 -test.v -test.run "$tests" 2>&1 | grep -E '^(--- |ok|FAIL|PASS|panic|fatal)|_test.go'
done </list
echo "== done"
poweroff -f
INIT
chmod +x "$out/root/init"
(cd "$out/root" && find . | cpio -o -H newc --quiet | gzip -1) >"$out/iso/initrd.gz"

linux=${FORTET_LINUX:-}
if [ -z "$linux" ]; then
  (
    cd "$out"
    apt-get download linux-image-cloud-amd64 >/dev/null
    package=$(dpkg -f linux-image-cloud-amd64_*.deb Depends | grep -o 'linux-image-[^ ,]*' | head -1)
    apt-get download "$package" >/dev/null
    dpkg -x "$package"_*.deb linux
  )
  linux=$(ls "$out"/linux/boot/vmlinuz-*)
fi
cp "$linux" "$out/iso/vmlinuz"
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$out/iso"
# Bochs' compact layout of XSAVE is not what Linux expects: 321 and 323 are
# XSAVEC and XSAVES, without which Linux uses the standard one.
cat >"$out/iso/isolinux.cfg" <<'CFG'
default linux
label linux
  kernel /vmlinuz
  append initrd=/initrd.gz console=ttyS0,115200 quiet mitigations=off clearcpuid=321,323 tsc=reliable lpj=1000000
CFG
xorriso -as mkisofs -quiet -o "$out/boot.iso" -b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table "$out/iso" 2>/dev/null
cat >"$out/bochsrc" <<RC
display_library: rfb, options="timeout=0"
megs: 1024
cpu: model=corei7_skylake_x, ips=100000000
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0-master: type=cdrom, path=$out/boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$out/serial.txt
log: $out/bochs.log
error: action=ignore
info: action=ignore
clock: sync=none
RC
echo c >"$out/debugger" # Debian's Bochs waits in its debugger

: >"$out/serial.txt"
tail -f "$out/serial.txt" &
watch=$!
bochs -q -f "$out/bochsrc" -rc "$out/debugger" >"$out/bochs.txt" 2>&1 </dev/null &
emulator=$!
trap 'kill $watch $emulator 2>/dev/null || true' EXIT
while kill -0 "$emulator" 2>/dev/null && ! grep -q '^== done' "$out/serial.txt"; do sleep 2; done
grep -q '^== done' "$out/serial.txt" && ! grep -qE '^(FAIL|panic|fatal|--- FAIL)' "$out/serial.txt" && ! grep -q 'not run: CPU level avx512' "$out/serial.txt"
