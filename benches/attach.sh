#!/bin/sh
# A volume that is attached (FUSE and a loop device) against a plain file behind the same loop set-up: direct I/O, logical
# blocks of 4 KiB, both files in DIR. Both have been written in full before, the pool all over, so that neither file system below has to
# allocate, or to note that a block is no longer unwritten. Interleaved; prints the ratio of the medians. Needs root, fio, losetup.
#
#   benches/attach.sh [DIR] [ROUNDS]       COWCTL=target/release/cowctl  SIZE_MB=1024  RUNTIME=5
set -eu
dir=$(mktemp -d "${1:-.}/attach-bench.XXXXXX")
rounds=${2:-3}
cowctl=$(realpath "${COWCTL:-target/release/cowctl}")
size=${SIZE_MB:-1024}
runtime=${RUNTIME:-5}
export COWCTL_POOL="$dir/pool.cow" COW_RUNTIME_DIR="$dir/run" COWCTL_DEVICE_DIR="$dir/dev"
plain=
finish() {
    "$cowctl" detach vm 2>/dev/null || true
    test -z "$plain" || losetup -d "$plain"
    rm -rf "$dir"
}
trap finish EXIT INT TERM

"$cowctl" pool create --size "$((size * 3 + 512))M" --preallocate
"$cowctl" create vm --size "${size}M"
"$cowctl" create fill --size "$((size * 2))M"
ours=$("$cowctl" attach vm 2>/dev/null)
dd if=/dev/urandom of="$dir/plain" bs=1M count="$size" conv=fsync status=none
plain=$(losetup -f --show --direct-io=on -b 4096 "$dir/plain")
dd if="$dir/plain" of="$ours" bs=1M oflag=direct conv=fsync status=none
fill=$("$cowctl" attach fill 2>/dev/null)
for at in 0 "$size"; do
    dd if="$dir/plain" of="$fill" bs=1M seek="$at" oflag=direct conv=fsync,notrunc status=none
done
"$cowctl" detach fill
"$cowctl" delete fill --wait

# name, what fio reports, arguments
measure() {
    device=$1; field=$2; shift 2
    fio --name=x --filename="$device" --direct=1 --ioengine=io_uring --time_based --runtime="$runtime" --ramp_time=1 \
        --size="${size}M" --norandommap --randrepeat=0 --output-format=json "$@" |
        python3 -c "import json,sys; j=json.load(sys.stdin)['jobs'][0]; print(round(sum(j[k]['$field'] for k in ('read','write')),1))"
}
compare() {
    name=$1; field=$2; shift 2
    a=; b=
    for _ in $(seq "$rounds"); do
        a="$a $(measure "$ours" "$field" "$@")"
        b="$b $(measure "$plain" "$field" "$@")"
    done
    python3 -c "
from statistics import median
a,b=[[float(x) for x in s.split()] for s in ('$a','$b')]
print(f'{\"$name\":24} ours {median(a):>10.0f}  plain {median(b):>10.0f}  ratio {median(a)/median(b):.2f}')"
}
echo "median of $rounds rounds of $runtime s; bw in KiB/s, else operations a second"
compare "sequential read (bw)" bw --rw=read --bs=1M --iodepth=8
compare "sequential write (bw)" bw --rw=write --bs=1M --iodepth=8
compare "random read 4k qd32" iops --rw=randread --bs=4k --iodepth=32
compare "random write 4k qd32" iops --rw=randwrite --bs=4k --iodepth=32
compare "random read 4k qd1" iops --rw=randread --bs=4k --iodepth=1
compare "write and fsync 4k" iops --rw=randwrite --bs=4k --iodepth=1 --fsync=1
