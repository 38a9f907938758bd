// What several tests of this target need.

import RouterProtocol

/// Reads a verdict as the worker does: from a whole line.
func decode(_ json: String, dataBytes: Int = 100, initialBytesMax: Int = 65536) throws(ProtocolError) -> Verdict {
    let line = Array(("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":" + json + "}").utf8)
    guard case .answer(1, let result) = try RouterMessage.parse(line.span) else { return .undecided(waitFor: -1) }
    return try Verdict.decode(
        line.span, result, limits: VerdictLimits(dataBytes: dataBytes, initialBytesMax: initialBytesMax))
}

/// The fault of a verdict that must be refused, and the key it names.
func fault(_ json: String, dataBytes: Int = 100, initialBytesMax: Int = 65536) -> String {
    do throws(ProtocolError) {
        return "accepted: \(try decode(json, dataBytes: dataBytes, initialBytesMax: initialBytesMax))"
    } catch {
        return error.key.map { "\(error.fault.rawValue) \($0)" } ?? error.fault.rawValue
    }
}

func parse(_ line: String) throws(ProtocolError) -> RouterMessage { try RouterMessage.parse(Array(line.utf8).span) }

/// The fault of a line that must be refused.
func lineFault(_ line: [UInt8]) -> Fault? {
    do throws(ProtocolError) {
        _ = try RouterMessage.parse(line.span)
        return nil
    } catch {
        return error.fault
    }
}

func lineFault(_ line: String) -> Fault? { lineFault(Array(line.utf8)) }

func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

/// The string that stands for `data` in a question's line, quotes included.
func dataString(of line: [UInt8]) -> String {
    guard let start = line.firstRange(of: bytes("\"data\":")), let end = line.firstRange(of: bytes(",\"client\":null,"))
    else { return "" }
    return String(decoding: line[start.upperBound..<end.lowerBound], as: UTF8.self)
}
