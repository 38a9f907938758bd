// inotify(7), for the files of a program that is being worked on.

import CLinux
import Glibc
public import SystemPackage

/// Watches files, and their like beside them: what is written, moved or made there. Editors replace a file by another, so it
/// is folders that are watched, and names that count.
public struct FileWatch: ~Copyable {
    private let descriptor: Descriptor
    /// By the number of the watch: which names count there, and which endings.
    private var folders: [Int32: (names: Set<String>, endings: Set<String>)] = [:]

    /// Watches these files. Those that cannot be watched are left out.
    public init(_ files: [String]) throws(Errno) {
        descriptor = Descriptor(owning: try check { inotify_init1(Int32(IN_NONBLOCK) | Int32(IN_CLOEXEC)) })
        for file in files {
            let slash = file.lastIndex(of: "/")
            let folder = slash.map { String(file[...$0]) } ?? "."
            let name = slash.map { String(file[file.index(after: $0)...]) } ?? file
            let number = inotify_add_watch(descriptor.raw, folder, UInt32(IN_CLOSE_WRITE | IN_MOVED_TO | IN_DELETE))
            guard number >= 0 else { continue }
            folders[number, default: ([], [])].names.insert(name)
            if let ending = Self.ending(name) { folders[number]?.endings.insert(ending) }
        }
    }

    public var raw: Int32 { descriptor.raw }
    public var isEmpty: Bool { folders.isEmpty }

    /// Takes what has happened: the name of a file that counts, if there is one.
    public func changed() -> String? {
        var name: String?
        var buffer = [UInt8](repeating: 0, count: 16_384)
        while true {
            let count = read(descriptor.raw, &buffer, buffer.count)
            guard count > 0 else { return name }
            var start = 0
            // struct inotify_event: the watch, the mask, the cookie, the length of the name, the name and its NULs.
            while start + 16 <= count {
                let (watch, length) = buffer.withUnsafeBytes {
                    (
                        $0.loadUnaligned(fromByteOffset: start, as: Int32.self),
                        Int($0.loadUnaligned(fromByteOffset: start + 12, as: UInt32.self))
                    )
                }
                let end = min(count, start + 16 + length)
                let found = String(decoding: buffer[start + 16..<end].prefix { $0 != 0 }, as: UTF8.self)
                if counts(found, watch) { name = found }
                start = end
            }
        }
    }

    private func counts(_ name: String, _ watch: Int32) -> Bool {
        guard let folder = folders[watch], !name.hasPrefix(".") else { return false }
        return folder.names.contains(name) || Self.ending(name).map { folder.endings.contains($0) } ?? false
    }

    /// `py` of `route.py`: what a script imports from beside it has the same.
    private static func ending(_ name: String) -> String? {
        guard let dot = name.lastIndex(of: "."), dot != name.startIndex else { return nil }
        return String(name[name.index(after: dot)...])
    }
}
