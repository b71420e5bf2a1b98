# certs.bash - certificates for the tests of TLS, made when a file of tests begins (setup_file: make_ca ca; make_cert ...).
#
# All stand in $C; one openssl each, and EC keys unless said otherwise: a few milliseconds.
# shellcheck shell=bash

declare -g C=${BATS_FILE_TMPDIR:-/nonexistent}

# make_ca NAME [CA]: $C/NAME.pem, $C/NAME.key; signed by CA, or by itself.
make_ca() {
    openssl req -x509 ${2:+-CA "$C/$2.pem" -CAkey "$C/$2.key"} -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj "/CN=$1" \
        -keyout "$C/$1.key" -out "$C/$1.pem" -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
}

# make_cert NAME CA SAN [rsa]: $C/NAME.pem, the certificate and its key; also alone, as $C/NAME.crt and $C/NAME.key. SAN as OpenSSL has it:
# DNS:a,IP:b.
make_cert() {
    local name=$1 ca=$2 san=$3 kind=(ec -pkeyopt ec_paramgen_curve:P-256)
    [ "${4:-ec}" = ec ] || kind=(rsa:2048)
    openssl req -x509 -CA "$C/$ca.pem" -CAkey "$C/$ca.key" -newkey "${kind[@]}" -nodes -days 20 -subj "/CN=$name" \
        -addext basicConstraints=critical,CA:FALSE -addext "subjectAltName=$san" -keyout "$C/$name.key" -out "$C/$name.crt" 2>/dev/null
    join_pem "$name"
}

join_pem() { # NAME
    cat "$C/$1.crt" "$C/$1.key" >"$C/$1.pem"
    chmod 600 "$C/$1.pem" "$C/$1.key"
}

# What `openssl ca` and `openssl ocsp` know of the certificates of a CA: $C/CA.index, a line for each that is told of.
database() { # CA
    touch "$C/$1.index"
    printf '%s\n' '[ca]' default_ca=d '[d]' "database=$C/$1.index" "new_certs_dir=$C" default_md=sha256 default_crl_days=20 \
        unique_subject=no rand_serial=yes policy=p copy_extensions=copy '[p]' commonName=supplied >"$C/$1.cnf"
}

ca() { # CA OPTION...
    local ca=$1
    shift
    openssl ca -batch -config "$C/$ca.cnf" -cert "$C/$ca.pem" -keyfile "$C/$ca.key" "$@" 2>/dev/null
}

# make_dated NAME CA SAN FROM TO: as make_cert, valid from 20200101000000Z to 20210101000000Z, for instance.
make_dated() {
    make_cert "$1" "$2" "$3"
    database "$2"
    openssl req -new -key "$C/$1.key" -subj "/CN=$1" -addext "subjectAltName=$3" -out "$C/$1.csr" 2>/dev/null
    ca "$2" -in "$C/$1.csr" -startdate "$4" -enddate "$5" -notext -out "$C/$1.crt"
    join_pem "$1"
}

# make_crl FILE CA NAME...: these are revoked.
make_crl() {
    local file=$1 ca=$2 name
    shift 2
    rm -f "$C/$ca.index"
    database "$ca"
    for name; do
        ca "$ca" -revoke "$C/$name.crt"
    done
    ca "$ca" -gencrl -out "$C/$file"
}

# make_ocsp FILE CA NAME: a response that says that it is good.
make_ocsp() {
    local file=$1 ca=$2 name=$3
    database "$ca"
    printf 'V\t400101000000Z\t\t%s\tunknown\t/CN=%s\n' "$(openssl x509 -in "$C/$name.crt" -noout -serial | sed 's/.*=//')" "$name" >"$C/$ca.index"
    openssl ocsp -issuer "$C/$ca.pem" -cert "$C/$name.crt" -no_nonce -reqout "$C/$file.req" 2>/dev/null
    openssl ocsp -index "$C/$ca.index" -CA "$C/$ca.pem" -rsigner "$C/$ca.pem" -rkey "$C/$ca.key" -reqin "$C/$file.req" -ndays 10 \
        -respout "$C/$file" >/dev/null 2>&1
}

fingerprint() { # FILE: sha256 of its certificate, as hark logs it
    openssl x509 -in "$1" -noout -fingerprint -sha256 | sed 's/.*=//; s/://g' | tr A-F a-f
}

# ---- clients ----

# tls_client [OPTION]... ADDRESS STEP...: client.py, which verifies.
tls_client() {
    client --tls --ca "$C/ca.pem" "$@"
}

spawn_tls_client() { # NAME [OPTION]... ADDRESS STEP...
    local name=$1
    shift
    spawn_client "$name" --tls --ca "$C/ca.pem" "$@"
}

# s_client OPTION...: openssl's, connected to $PORT; verifies if that matters (-verify_return_error).
s_client() {
    timeout 20 openssl s_client -connect "127.0.0.1:$PORT" -CAfile "$C/ca.pem" "$@"
}

# subject_for OPTION-OF-S_CLIENT...: the CN of the certificate that this client is shown.
subject_for() {
    s_client "$@" </dev/null 2>/dev/null | openssl x509 -noout -subject -nameopt multiline 2>/dev/null | sed -n 's/.*commonName *= //p'
}

# resume [OPTION]... STEP...: resume.py, which verifies.
resume() {
    python "$TESTS/resume.py" --ca "$C/ca.pem" "$@"
}

spawn_resume() { # NAME [OPTION]... STEP...
    local name=$1
    shift
    spawn "$name" "$PYTHON" -SE "$TESTS/resume.py" --ca "$C/ca.pem" "$@"
}

# reload [PID]: SIGHUP, and the line that says that it was done; or, with an error, that it was not.
reload() {
    local before
    before=$(grep -cE '^hark: (reload |error: reload:)' "$LOG" || true)
    kill -HUP "${1:-$HARK_PID}"
    wait_for_log '^hark: (reload |error: reload:)' $((before + 1))
}

# in_each_process COMMAND...: while all but one of hark's processes are stopped, for each of them.
in_each_process() {
    local pid result=0
    for pid in $(pgrep -P "$HARK_PID"); do
        pkill -STOP -P "$HARK_PID"
        kill -CONT "$pid"
        "$@" || result=1
        pkill -CONT -P "$HARK_PID"
    done
    return "$result"
}
