// The file that tells a process's id to whoever wants to signal it: written in one piece, never somebody else's.

import CLinux
import Glibc
public import SystemPackage

/// A pid file that this process has written. It is locked (flock(2)) for as long as we live, so that a number that has
/// been given to another process since is not taken for us, and a holder in another container is not overlooked.
public struct PidFile: ~Copyable {
    /// Why a pid file cannot be had.
    public enum Failure: Error, Hashable, Sendable, CustomStringConvertible {
        case system(String, Errno)
        /// The process of this id, if it is known, lives.
        case held(String, by: Int32?)
        /// What is there is no pid file: not ours to replace.
        case notAPidFile(String)

        public var description: String {
            switch self {
            case .system(let path, let error): "the pid file \(path) cannot be written: \(error)"
            case .held(let path, let pid?): "the pid file \(path) is held by process \(pid), which is running"
            case .held(let path, nil): "the pid file \(path) is held by another process"
            case .notAPidFile(let path): "\(path) is no pid file, so it is not replaced"
            }
        }
    }

    /// Where it is now.
    public private(set) var path: String
    private let descriptor: Descriptor

    /// Writes a pid file. One that a live process holds is refused, a stale one is replaced.
    /// The C functions are `open(O_EXCL)`, `flock`, `link` and `rename`.
    public init(writing path: String, pid: Int32 = Process.pid) throws(Failure) {
        descriptor = try Self.write(path, pid)
        self.path = path
    }

    private static func write(_ path: String, _ pid: Int32) throws(Failure) -> Descriptor {
        let temporary = "\(path).\(pid).new"
        // Left by a process of the same id that did not come further.
        unlink(temporary)
        let raw = Glibc.open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o644)
        guard raw >= 0 else { throw .system(path, currentErrno()) }
        let descriptor = Descriptor(owning: raw)
        defer { unlink(temporary) }
        let text = Array("\(pid)\n".utf8)
        guard flock(raw, LOCK_EX | LOCK_NB) == 0, Glibc.write(raw, text, text.count) == text.count else {
            throw .system(path, currentErrno())
        }
        // Whoever else replaces a stale one meanwhile is noticed, and then it is looked at again.
        for _ in 0..<100 {
            if link(temporary, path) == 0 { return descriptor }
            guard errno == EEXIST else { throw .system(path, currentErrno()) }
            if try replace(path, with: temporary) { return descriptor }
        }
        throw .held(path, by: nil)
    }

    /// Replaces a stale pid file; false when it has changed in between.
    private static func replace(_ path: String, with temporary: String) throws(Failure) -> Bool {
        let raw = Glibc.open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY)
        guard raw >= 0 else {
            if errno == ENOENT { return false }
            throw errno == ELOOP ? .notAPidFile(path) : .system(path, currentErrno())
        }
        let old = Descriptor(owning: raw)
        guard let pid = try content(old, path) else { throw .notAPidFile(path) }
        guard flock(old.raw, LOCK_EX | LOCK_NB) == 0 else { throw .held(path, by: pid > 0 ? pid : nil) }
        // Without a lock it is not ours, or from before a crash: then only the number tells.
        if pid > 0, pid != getpid(), kill(pid, 0) == 0 || errno == EPERM { throw .held(path, by: pid) }
        guard FileIdentity(path: path) == FileIdentity(old) else { return false }
        guard rename(temporary, path) == 0 else { throw .system(path, currentErrno()) }
        return true
    }

    /// The number in a pid file, 0 when it is empty, nil when it is something else.
    private static func content(_ file: borrowing Descriptor, _ path: String) throws(Failure) -> Int32? {
        var status = stat()
        guard fstat(file.raw, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return nil }
        var buffer = [UInt8](repeating: 0, count: 64)
        let count = read(file.raw, &buffer, buffer.count)
        guard count >= 0 else { throw .system(path, currentErrno()) }
        let text = String(decoding: buffer[..<count], as: UTF8.self)
        let words = text.split { $0 == " " || $0 == "\n" || $0 == "\r\n" || $0 == "\t" }
        if words.isEmpty { return 0 }
        guard words.count == 1, let pid = Int32(words[0]), pid >= 0 else { return nil }
        return pid
    }

    /// The number in the pid file at a path; nil when there is none.
    public static func pid(at path: String) -> Int32? {
        let raw = Glibc.open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY)
        guard raw >= 0 else { return nil }
        let file = Descriptor(owning: raw)
        guard let pid = try? content(file, path), pid > 0 else { return nil }
        return pid
    }

    /// Removes what a process has left that is gone, or is going: its lock may outlast what has told us of its end.
    public static func removeStale(_ path: String, of pid: Int32) {
        let raw = Glibc.open(path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY)
        guard raw >= 0 else { return }
        let file = Descriptor(owning: raw)
        guard let there = try? content(file, path), there == pid else { return }
        if FileIdentity(path: path) == FileIdentity(file) { unlink(path) }
    }

    /// Gives it another name, replacing what is stale there. The C function is `rename`.
    public mutating func move(to other: String) throws(Failure) {
        guard isOurs else { throw .system(path, .noSuchFileOrDirectory) }
        let raw = Glibc.open(other, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY)
        if raw >= 0 {
            let there = Descriptor(owning: raw)
            guard let pid = try Self.content(there, other) else { throw .notAPidFile(other) }
            guard flock(there.raw, LOCK_EX | LOCK_NB) == 0 else { throw .held(other, by: pid > 0 ? pid : nil) }
        }
        guard rename(path, other) == 0 else { throw .system(other, currentErrno()) }
        path = other
    }

    /// Whether what is at the path is what we have written.
    public var isOurs: Bool { FileIdentity(path: path).map { $0 == FileIdentity(descriptor) } ?? false }

    /// Removes it, if it is still ours. The C function is `unlink`.
    public consuming func remove() {
        if isOurs { unlink(path) }
    }
}
