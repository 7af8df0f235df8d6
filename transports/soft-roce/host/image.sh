# shellcheck shell=bash disable=SC2154,SC2034
# The one initramfs that both guests boot: busybox, verbs, our binaries, what those need, and the cases.

image_tools=(rdma ip ib_read_lat ib_read_bw)

make_image() {
    local root=$scratch/root directory file
    mkdir -p "$root"/{dev,etc,proc,sys,tmp,run,out,cases,usr/bin,usr/sbin,usr/lib,usr/lib64}
    for directory in bin sbin lib lib64; do
        ln -s "usr/$directory" "$root/$directory"
    done
    put_busybox "$root"
    for file in "${image_tools[@]}"; do
        put_program "$root" "$(PATH=$PATH:/usr/sbin:/sbin command -v "$file")"
    done
    while read -r file; do
        put_program "$root" "$file"
    done < <(our_binaries)
    put_verbs "$root"
    put_dependencies "$root"
    cp -r "$kernel_dir/lib/modules" "$root/usr/lib/modules"
    printf '%s\n' "${guest_modules[@]}" >"$root/etc/modules"
    install -m 755 "$here/guest/init" "$root/init"
    install -m 755 "$here"/guest/bin/* "$root/usr/bin"
    install -m 644 "$here/guest/lib.sh" "$root/lib.sh"
    install -m 644 "$here"/cases/*.sh "$root/cases"
    # Not compressed: the emulated processor would spend longer on unpacking than the host on reading.
    (cd "$root" && find . | cpio --quiet -o -H newc -R 0:0) >"$scratch/image"
}

put_busybox() {
    local applet
    install -m 755 "$(command -v busybox)" "$1/usr/bin/busybox"
    for applet in $(busybox --list); do
        [ "$applet" = busybox ] || ln -s busybox "$1/usr/bin/$applet"
    done
}

# Without its debugging information, which would only take the guests' memory.
put_program() {
    local to=$1/usr/bin/${2##*/}
    rm -f "$to"     # may be a link to busybox
    strip -o "$to" "$2" 2>/dev/null || cp "$2" "$to"
    chmod 755 "$to"
}

# Verbs are loaded at run time, so ldd does not know of them: the libraries, and the provider for Soft-RoCE.
put_verbs() {
    local root=$1 library
    for library in libibverbs.so.1 librdmacm.so.1 libmlx5.so.1; do
        put_library "$root" "$(find_library "$library")"
    done
    put_library "$root" "$(echo /usr/lib/x86_64-linux-gnu/libibverbs/librxe-rdmav*.so)"
    install -D -m 644 /etc/libibverbs.d/rxe.driver "$root/etc/libibverbs.d/rxe.driver"
}

find_library() {
    PATH=$PATH:/usr/sbin:/sbin ldconfig -p | sed -n "s|^[[:space:]]*$1 .*=> ||p" | grep -m1 x86_64 || die "no $1 here"
}

put_library() {
    install -D -m 644 "$2" "$1$2"
}

# All that the programs and libraries in the image are linked with.
put_dependencies() {
    local root=$1 library
    find "$root" -type f \( -perm -u+x -o -name '*.so*' \) -exec ldd {} ';' 2>/dev/null \
        | sed -n 's|^[[:space:]]*\(.* => \)\{0,1\}\(/[^ ]*\) (0x.*|\2|p' | sort -u | while read -r library; do
        put_library "$root" "$library"
    done
    chmod 755 "$root"/lib64/ld-linux-*
}
