# shellcheck shell=bash disable=SC2154,SC2034
# The guests' kernel: Debian's own, with only those modules that the guests load. Installing the package would take
# more than 400 MB and a place in the boot menu; unpacking it takes neither. Kept for the next run.

kernel_dir=$target/soft-roce/kernel

# What a guest loads. rdma_rxe asks the kernel for a CRC-32 when it is loaded, so crc32_generic goes before it.
guest_modules=(crc32_generic virtio_pci virtio_net 9pnet_virtio 9p rdma_rxe veth bridge)

fetch_kernel() {
    # What was fetched by another version of this file is made anew.
    local package work=$scratch/kernel version
    version=$(cksum <"$here/host/kernel.sh")
    [ "$(cat "$kernel_dir/complete" 2>/dev/null)" != "$version" ] || return 0
    mkdir -p "$work/package" "$work/kept" "$kernel_dir"
    package=$(kernel_package)
    if ! download "$package"; then
        # apt has no lists, or older ones than the archive.
        [ -n "$install" ] || die "could not download the kernel, ${package:-linux-image-amd64}: as root, apt-get update may help"
        as_root apt-get -q -q update || die "apt-get update failed"
        package=$(kernel_package)
        download "$package" || die "could not download the kernel, ${package:-linux-image-amd64}"
    fi
    dpkg-deb --fsys-tarfile "$kernel_dir/$package.deb" | tar -x -C "$work/package" --wildcards './boot/vmlinuz*' './lib/modules'
    keep_modules "$work/package" "$work/kept" "${package#linux-image-}"
    unpack_vmlinuz "$work"/package/boot/vmlinuz-* >"$work/kept/vmlinux"
    rm -rf "${kernel_dir:?}"/{complete,lib,vmlinux}
    mv "$work/kept"/* "$kernel_dir"
    rm -rf "$work"
    echo "$version" >"$kernel_dir/complete"
}

# linux-image-amd64 is empty and depends on the kernel of the day.
kernel_package() {
    apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1
}

download() {
    local package=$1 options=()
    [ -n "$package" ] || return 1
    [ ! -s "$kernel_dir/$package.deb" ] || return 0
    # As root, apt would hand the download to a user who may not write here, and complain.
    [ "$(id -u)" != 0 ] || options=(-o APT::Sandbox::User=root)
    say "downloading $package"
    rm -rf "$scratch/download" "$kernel_dir"/*.deb
    mkdir "$scratch/download"
    (cd "$scratch/download" && apt-get -q -q "${options[@]}" download "$package") || return 1
    # Under its own name only when all of it is there: the two directories may be on different disks.
    mv "$scratch/download"/*.deb "$kernel_dir/part" && mv "$kernel_dir/part" "$kernel_dir/$package.deb"
}

# The kernel without the program that unpacks it at each start, which takes an emulated processor 2 to 6 seconds. QEMU
# boots it as it is. The packed kernel is an xz stream inside the file, behind some kilobytes of that program.
unpack_vmlinuz() {
    local start
    start=$(LC_ALL=C grep -abo -P '\xFD7zXZ' "$1") || die "the kernel is not packed with xz"
    # xz stops reading where the stream ends.
    { tail -c "+$((${start%%:*} + 1))" "$1" || true; } | xz -dc --single-stream
}

# The modules that the guests load and all that those need, with a dependency file for modprobe.
keep_modules() {
    local from=$1/lib/modules/$3 to=$2/lib/modules/$3 module file
    busybox depmod -b "$1" "$3"
    for module in "${guest_modules[@]}"; do
        file=$(grep "/$module\.ko:" "$from/modules.dep") || die "the kernel has no module $module"
        for file in ${file/:/ }; do
            install -D -m 644 "$from/$file" "$to/$file"
        done
    done
    cp "$from/modules.builtin" "$from/modules.order" "$to"
    busybox depmod -b "$2" "$3"
}
