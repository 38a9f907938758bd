// Connections through the rewriters of Routers/stepping.py, which take the steps they are told.

import Foundation

/// A tproxy with that router.
func withStepping(
    _ options: [String] = [], environment: [String: String] = [:], _ body: (TProxy, Origin) throws -> Void
) throws {
    try withTProxy(options, router: Repository.python("stepping.py"), environment: environment) {
        try body($0, try Origin())
    }
}

/// The first line for stepping.py. Directions without steps are copied; `verdict` are members beside `remote`.
func steppingOrder(
    _ remote: String, request: [String] = [], response: [String] = [], verdict: String = "", whole: Bool = false
) -> String {
    func list(_ steps: [String]) -> String { "[" + steps.map { "\"\($0)\"" }.joined(separator: ", ") + "]" }
    return #"{"request": \#(list(request)), "response": \#(list(response)), "whole": \#(whole), "#
        + #""verdict": {"remote": "\#(remote)"\#(verdict)}}"#
}

extension TProxy {
    /// A connection of which these rewriters are part, once the remote has it.
    func stepping(
        _ origin: Origin, request: [String] = [], response: [String] = [], _ first: String = "", verdict: String = ""
    ) throws -> (client: Peer, server: Peer) {
        let client = try client(
            steppingOrder(origin.address, request: request, response: response, verdict: verdict), first)
        return (client, try origin.accept())
    }
}

/// Bytes that differ with the seed and nowhere repeat soon.
func scrambled(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
    var state = seed &* 0x9e37_79b9_7f4a_7c15 | 1
    return [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
        for index in 0..<count {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            buffer[index] = UInt8(truncatingIfNeeded: state &>> 33)
        }
        filled = count
    }
}

/// Something that goes on beside the test, on a thread, and its result.
final class Beside<Result: Sendable>: @unchecked Sendable {
    private let done = DispatchSemaphore(value: 0)
    private var outcome: Swift.Result<Result, any Error>?

    init(_ body: @escaping @Sendable () throws -> Result) {
        let thread = Thread {
            self.outcome = Swift.Result { try body() }
            self.done.signal()
        }
        thread.start()
    }

    func result() throws -> Result {
        done.wait()
        done.signal()
        guard let outcome else { throw Failure("nothing came of it") }
        return try outcome.get()
    }
}

/// Sends all of it beside the test; with `ending` it then ends its side.
@discardableResult
func sending(_ bytes: [UInt8], from peer: Peer, ending: Bool = true) -> Beside<Bool> {
    Beside {
        do {
            try peer.send(bytes, within: 60)
        } catch {
            return false
        }
        if ending { peer.end() }
        return true
    }
}

/// Everything a peer gets, read beside the test.
func draining(_ peer: Peer) -> Beside<(bytes: [UInt8], ending: Ending)> {
    Beside { try peer.drain(within: 60) }
}
