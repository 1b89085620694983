# tern data, against a server on this machine: whole, missing, cut off and altered files.
set -eu
debian=/usr/share/datasets/fashion-mnist
if ! command -v python3 > /dev/null || [ ! -r $debian/train-images-idx3-ubyte.gz ]; then
    echo "skipped: needs python3 and the package dataset-fashion-mnist"
    exit 77
fi
scratch=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill $server; rm -rf "$scratch"' EXIT
failed=0
complain() { echo "fetch: $*"; failed=1; }

# A port of the system's choice; the server says which.
mkdir "$scratch/served" "$scratch/served/tar"
cp $debian/*.gz "$scratch/served"
python3 -u -c '
import functools, http.server, sys
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
server = http.server.HTTPServer(("127.0.0.1", 0), handler)
print(server.server_port)
server.serve_forever()' "$scratch/served" > "$scratch/port" 2> "$scratch/requests" &
server=$!
for try in 1 2 3 4 5 6 7 8 9 10; do [ -s "$scratch/port" ] || sleep 0.5; done
url=http://127.0.0.1:$(cat "$scratch/port")
unset TERN_DATA http_proxy all_proxy ALL_PROXY

# expect CODE WORD ARGUMENTS...: the exit code of tern data, and a word of its message
expect() {
    want=$1 word=$2
    shift 2
    got=0
    (cd "$scratch" && "$PROGRAM" data "$@" > "$scratch/out" 2> "$scratch/message") || got=$?
    [ $got -eq $want ] || complain "tern data $*: exit code $got, should be $want: $(cat "$scratch/message")"
    grep -q -e "$word" "$scratch/out" "$scratch/message" || complain "tern data $*: does not say $word"
}

expect 0 t10k-labels fashion-mnist --from "$url"
for file in train-images-idx3 train-labels-idx1 t10k-images-idx3 t10k-labels-idx1; do
    gzip -dc $debian/$file-ubyte.gz | cmp - "$scratch/data/fashion-mnist/$file-ubyte" || complain "$file differs"
done
requests=$(wc -l < "$scratch/requests")
expect 0 already fashion-mnist --from "$url"
[ "$requests" = "$(wc -l < "$scratch/requests")" ] || complain "what was there is fetched again"

# A file that changed on the disk is fetched again.
echo x >> "$scratch/data/fashion-mnist/t10k-labels-idx1-ubyte"
expect 0 bytes fashion-mnist --from "$url"
gzip -dc $debian/t10k-labels-idx1-ubyte.gz | cmp - "$scratch/data/fashion-mnist/t10k-labels-idx1-ubyte" ||
    complain "a changed file stayed"

# Other bytes in a valid gzip file, then a file that is cut off, then none: nothing is kept of it.
rm "$scratch/data/fashion-mnist/t10k-labels-idx1-ubyte"
echo other | gzip > "$scratch/served/t10k-labels-idx1-ubyte.gz"
expect 1 SHA-256 fashion-mnist --from "$url"
head -c 3000 $debian/t10k-labels-idx1-ubyte.gz > "$scratch/served/t10k-labels-idx1-ubyte.gz"
expect 1 'cut off' fashion-mnist --from "$url"
rm "$scratch/served/t10k-labels-idx1-ubyte.gz"
expect 1 404 fashion-mnist --from "$url"
[ "$(ls "$scratch/data/fashion-mnist" | wc -l)" -eq 3 ] || complain "something was kept of a failure"

# An archive: without the data, what is wrong with it; with it, all of it.
mkdir "$scratch/bins"
echo short > "$scratch/bins/data_batch_1.bin"
tar -C "$scratch" -czf "$scratch/served/tar/cifar-10-binary.tar.gz" bins
expect 1 SHA-256 cifar-10 --from "$url/tar" --to there/and/there
echo short > "$scratch/bins/other.bin"
rm "$scratch/bins/data_batch_1.bin"
tar -C "$scratch" -czf "$scratch/served/tar/cifar-10-binary.tar.gz" bins
expect 1 'no whole data_batch_1.bin' cifar-10 --from "$url/tar" --to there/and/there
shared=${SOURCE:-.}/../shared/data/cifar-10
if [ -r "$shared/data_batch_1.bin.xz" ] && command -v xz > /dev/null; then
    # One file of six is enough to see that it is found, checked and kept.
    xz -dc "$shared/data_batch_1.bin.xz" > "$scratch/bins/data_batch_1.bin"
    echo short > "$scratch/bins/data_batch_2.bin"
    tar -C "$scratch" -cf - bins | gzip -1 > "$scratch/served/tar/cifar-10-binary.tar.gz"
    expect 1 'data_batch_2.bin has the SHA-256' cifar-10 --from "$url/tar" --to there/and/there
    cmp "$scratch/bins/data_batch_1.bin" "$scratch/there/and/there/cifar-10/data_batch_1.bin" ||
        complain "data_batch_1.bin differs"
fi

expect 0 usage --help
expect 2 usage
expect 2 usage mnist --from
expect 2 usage mnist extra
expect 2 usage --nonsense
expect 2 'no data set' imagenet
expect 1 'nowhere' mnist --from file:///nowhere
expect 1 rotocol mnist --from gopher://127.0.0.1
exit $failed
