// One policy for the outcome of system calls: interrupted calls are repeated, failures are typed.

import Glibc
import SystemPackage

/// What moving bytes without blocking came to.
public enum Transfer: Equatable, Sendable {
    /// So many bytes, at least one.
    case moved(Int)
    /// Nothing now; the reactor will say when.
    case wouldBlock
    /// The peer has ended its side: a read of 0 and nothing else.
    case endOfStream
}

/// The calling thread's errno as a value.
@inline(__always)
func currentErrno() -> Errno { Errno(rawValue: errno) }

/// Runs a call until it is not interrupted; -1 becomes a thrown errno.
@inline(__always)
func check<Result: SignedInteger>(_ call: () -> Result) throws(Errno) -> Result {
    while true {
        let result = call()
        if result != -1 { return result }
        let error = currentErrno()
        if error != .interrupted { throw error }
    }
}

/// The same for a call that moves bytes: would-block is a value, 0 is the end of the stream.
@inline(__always)
func transfer(_ call: () -> Int) throws(Errno) -> Transfer {
    while true {
        let count = call()
        if count > 0 { return .moved(count) }
        if count == 0 { return .endOfStream }
        let error = currentErrno()
        if error == .wouldBlock { return .wouldBlock }
        if error != .interrupted { throw error }
    }
}
